"""Co-attention: what is known of a patient asks the tiles of the slides, and the answers join the embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from nsclc_mtl.fusion.joining import Fusion, Joining, softmax_over_present
from nsclc_mtl.records import Embedding

START = 0.1  # size of the answers' last weights, in the usual ones: see `encoders.tabular.MLP`


class CoAttention(Fusion):
    """Tokens of the other modalities are queries over the tiles; what each reads joins the embeddings.

    The idea is that of MCAT (Chen et al., ICCV 2021), with pathways as tokens as in SurvPath (Jaume et al., CVPR 2024).
    A modality without tokens asks with its embedding as one token; one token asks for no modality at all, so that a
    slide alone is read as well. A token is combined with what it read by a small network, and the tokens that the
    patient has are pooled by a gate. MCAT has transformers there; ours differs in that tokens meet in that pool alone,
    and in that the slide's own embedding stays beside the answers. Time and memory are tokens x tiles.

    Args:
        modalities, tasks: their names. dim: size of an embedding. tiles: modality with packed tokens -> their width.
        tokens: modality with tokens a patient -> their width. width: of queries, keys and values.
        hidden: width of the view, the same for all tasks. dropout: of the view. modality_dropout: see `Fusion`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        tasks: Sequence[str],
        dim: int,
        tiles: Mapping[str, int] | None = None,
        tokens: Mapping[str, int] | None = None,
        width: int = 16,
        hidden: int = 32,
        dropout: float = 0.25,
        modality_dropout: float = 0.1,
    ) -> None:
        super().__init__(modalities, tasks, hidden, modality_dropout)
        tiles, tokens = tiles or {}, tokens or {}
        self.read = tuple(name for name in self.modalities if name in tiles)
        self.asking = tuple(name for name in self.modalities if name not in tiles)
        self.tokened = frozenset(tokens)
        self.token = nn.ModuleDict({name: nn.Linear(tokens.get(name, dim), width) for name in self.asking})
        self.nobody = nn.Parameter(torch.randn(width))  # the token of no modality
        self.query, self.gate = nn.Linear(width, width, bias=False), nn.Linear(width, 1)
        self.key = nn.ModuleDict({name: nn.Linear(tiles[name], width, bias=False) for name in self.read})
        self.value = nn.ModuleDict({name: nn.Linear(tiles[name], width) for name in self.read})
        self.answer = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, dim)) for name in self.read}
        )
        with torch.no_grad():
            for answer in self.answer.values():
                answer[-1].weight.mul_(START)  # type: ignore[index]
        self.join = Joining([*self.modalities, *(f"{name}/asked" for name in self.read)], dim)
        # linear, as experts are: what bends is the co-attention, and no norm gives noise the others' voice
        self.layers = nn.Sequential(nn.Linear(dim * len(self.join.modalities), hidden), nn.Dropout(dropout))

    def asked(self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Tokens that ask, [patient, token, width], and which of them the patient has, bool [patient, token].

        The first is the one of no modality, which everybody has.
        """
        n = len(next(iter(present.values())))
        rows = [self.nobody.expand(n, 1, -1)]
        used = [torch.ones(n, 1, dtype=torch.bool, device=self.nobody.device)]
        for name in self.asking:
            said = seen[name].tokens if name in self.tokened else seen[name].vector[:, None]
            assert said is not None
            made = self.token[name](torch.where(present[name][:, None, None], said, 0.0))
            rows.append(made)
            used.append(present[name][:, None].expand(n, made.shape[1]))
        return torch.cat(rows, dim=1), torch.cat(used, dim=1)

    def looks(self, name: str, query: Tensor, said: Embedding, present: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Patient by patient who has tiles: number, attention [token, tile] and what the tokens read [token, width].

        Tiles of others are not touched, whatever stands in them.
        """
        assert said.tokens is not None
        assert said.offsets is not None
        ends = said.offsets.tolist()
        for i in torch.nonzero(present & (said.offsets.diff() > 0)).flatten().tolist():
            tile = said.tokens[ends[i] : ends[i + 1]]
            weight = (query[i] @ self.key[name](tile).T * query.shape[-1] ** -0.5).softmax(1)
            yield i, weight, weight @ self.value[name](tile)

    def tile_weights(self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean attention [tile] of the tokens that the patient has, each as much as the pool weighs it."""
        tokens, used = self.asked(seen, present)
        pool, query, out = self._pool(tokens, used), self.query(tokens), {}
        for name in self.read:
            rows = seen[name].tokens
            offsets = seen[name].offsets
            assert rows is not None
            assert offsets is not None
            out[name] = rows.new_zeros(len(rows))
            for i, weight, _ in self.looks(name, query, seen[name], present[name]):
                out[name][int(offsets[i]) : int(offsets[i + 1])] = pool[i] @ weight
        return out

    def _pool(self, tokens: Tensor, used: Tensor) -> Tensor:
        return softmax_over_present(self.gate(tokens).squeeze(-1), used)

    def forward(
        self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The same view [patient, hidden] for every task, and no losses of its own."""
        tokens, used = self.asked(seen, present)
        pool, query = self._pool(tokens, used), self.query(tokens)
        seen, present = dict(seen), dict(present)
        for name in self.read:
            found = {i: read for i, _, read in self.looks(name, query, seen[name], present[name])}
            blank = torch.zeros_like(tokens[0])
            read = torch.stack([found.get(i, blank) for i in range(len(tokens))])
            answers = (pool[:, :, None] * self.answer[name](torch.cat([read, tokens], dim=2))).sum(1)
            offsets = seen[name].offsets
            assert offsets is not None
            seen[f"{name}/asked"] = Embedding(answers)
            present[f"{name}/asked"] = present[name] & (offsets.diff() > 0)
        joined, _ = self.join(seen, present)
        return dict.fromkeys(self.tasks, self.layers(joined.flatten(1))), {}
