"""Random numbers that belong to patients: dropout as a function of (seed, epoch, patient), whoever else is there.

The usual generator gives one number after the other, so that a mask depends on everything that was drawn before it.
Here each number is a hash of its key, as in counter-based generators (Salmon et al., SC 2011): nothing is remembered,
the same patient sees the same masks in the same epoch, however often it is looked at and in whatever company.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

# Below autograd every dropout, of a layer or inside of an attention, is one of a few elementary draws.
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from nsclc_mtl.records import Bag, Batch, Series, UsageFault

BITS = 24  # of every draw: what a float32 holds
BLOCK = 1 << 18  # draws made at a time, so that they stay in the cache
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: multiples of it lie evenly in 64 bits


class Keyed(TorchDispatchMode):
    """While it is on, random draws of the forward pass depend on (seed, epoch, patient) and their place alone.

    The place of a draw is the encoder that makes it (one of `encoders`, or what comes after them), its number there,
    the row among those of the patient, and the columns. The first axis of what is drawn says whose it is: the tiles or
    visits of the packed record of the encoder, one row a patient or a patient who has some of them, or as many rows for
    each of these. Random numbers whose rows belong to nobody raise UsageFault, and so do other draws than dropout,
    uniform and normal ones.

    Rows are told apart by their number. In a batch of as many tiles (or visits) as patients, some of whom have none,
    one row a patient is taken for one a tile: the masks of that batch then depend on its company, though they are the
    same whenever it is run.
    """

    def __init__(self, batch: Batch, seed: int, epoch: int, encoders: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__()
        self.encoders = dict(encoders or {})
        digests = [hashlib.blake2b(f"{seed}/{epoch}/{p}".encode(), digest_size=8).digest() for p in batch.patients]
        self.patients = torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests])
        self.offsets = {name: x.offsets for name, x in batch.inputs.items() if isinstance(x, (Bag, Series))}
        self.place, self.draws = "", dict[str, int]()
        self._hooks: list[RemovableHandle] = []
        self._random, self._made = dict[Any, bool](), dict[Any, Any]()

    def __enter__(self) -> Self:
        """Listens to the encoders, so that every draw knows where it is made."""
        for name, module in self.encoders.items():
            self._hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self._at(name)))
            self._hooks.append(module.register_forward_hook(lambda *_: self._at(""), always_call=True))
        super().__enter__()
        return self

    def __exit__(self, *wrong: Any) -> None:
        """Leaves the encoders as they were."""
        super().__exit__(*wrong)
        while self._hooks:
            self._hooks.pop().remove()

    def _at(self, place: str) -> None:
        self.place = place

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every elementary operation passes here; only the random ones are replaced."""
        kwargs = kwargs or {}
        if func not in self._random:
            self._random[func] = torch.Tag.nondeterministic_seeded in func.tags
        return self._drawn(func, args, kwargs) if self._random[func] else func(*args, **kwargs)

    def _drawn(self, func: Any, args: Any, kwargs: Any) -> Any:
        words = func._schema.arguments  # an argument that equals its default does not arrive
        given = {a.name: a.default_value for a in words if a.has_default_value()}
        given |= dict(zip((a.name for a in words), args, strict=False)) | kwargs
        name = func._schema.name.removeprefix("aten::")
        if name == "native_dropout":
            x, share = given["input"], float(given["p"])
            if given["train"] is False or share == 0:
                return x.clone(), torch.ones_like(x, dtype=torch.bool)
            kept = self._below(1 - share, x)
            return x * kept * (1 / (1 - share) if share < 1 else 0.0), kept
        if name in ("bernoulli_", "bernoulli"):
            x, p = given["self"], given.get("p")
            made = self._below(x if p is None else p, x)
            return x.copy_(made) if name == "bernoulli_" else made.to(x.dtype)
        if name in ("rand", "randn", "rand_like", "randn_like"):
            like = given.get("self")
            kind = {k: v for k, v in kwargs.items() if k in ("dtype", "device") and v is not None}
            x = torch.empty(given["size"], **kind) if like is None else torch.empty_like(like, **kind)
            return x.copy_(self._uniform(x) if "randn" not in name else self._normal(x))
        if name == "uniform_":
            low, high = given["from"], given["to"]
            return given["self"].copy_(self._uniform(given["self"]) * (high - low) + low)
        if name == "normal_":
            return given["self"].copy_(self._normal(given["self"]) * given["std"] + given["mean"])
        shares = [given.get(word, None) for word in ("dropout_p", "dropout")]
        if any(share is not None for share in shares) and not any(shares):  # attention, recurrent nets
            return func(*args, **kwargs)
        raise UsageFault(
            f"cox.mode=exact: {self._where()} draws random numbers that cannot be tied to patients ({name}): set its "
            "dropout to 0, take another part, or cox.mode=batch"
        )

    def _where(self) -> str:
        return f"the encoder of '{self.place}'" if self.place else "a part behind the encoders"

    # -----------------------------------------------------------------------------------------------------------------
    # Draws
    # -----------------------------------------------------------------------------------------------------------------

    def _below(self, p: Any, x: Tensor) -> Tensor:
        """Bool of the shape of `x`, True with probability p, a number or a tensor."""
        limit = p.double() * (1 << BITS) if isinstance(p, Tensor) else round(float(p) * (1 << BITS))
        return self._integers(x) < limit

    def _uniform(self, x: Tensor) -> Tensor:
        """Float32 in [0, 1) of the shape of `x`."""
        return self._integers(x).float() * 2.0**-BITS

    def _normal(self, x: Tensor) -> Tensor:
        """Standard normal float32 of the shape of `x` (Box and Muller, Ann Math Stat, 1958)."""
        first, second = 1 - self._uniform(x), self._uniform(x)
        return (-2 * first.log()).sqrt() * (2 * torch.pi * second).cos()

    def _integers(self, x: Tensor) -> Tensor:
        """Int32 of the shape of `x`, evenly between 0 and 2^24 - 1, by the keys of the place."""
        number = self.draws[self.place] = self.draws.get(self.place, 0) + 1
        place = ((zlib.crc32(self.place.encode()) << 24) + number) * GOLDEN
        owner, position = self._kept(("rows", self.place, x.shape[:1], x.device), lambda: self._rows(x))
        columns = self._kept(("columns", x.shape[1:], x.device), lambda: _columns(x))
        rows = _mixed(self.patients.to(x.device)[owner] + _signed(place))
        rows = _mixed(rows + position).int()[:, None]
        made = torch.empty(len(rows), len(columns), dtype=torch.int32, device=x.device)
        for block in range(0, len(rows), step := max(1, BLOCK // max(1, len(columns)))):
            made[block : block + step] = _mixed_32(rows[block : block + step] + columns) >> (32 - BITS)
        return (made & ((1 << BITS) - 1)).view(x.shape)

    def _kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """What was made before under this key; many layers draw the same shape."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _rows(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Whose each row of `x` is, int64 [row], and the step of its key from the first row of the patient."""
        n, rows = len(self.patients), x.shape[0] if x.ndim else 0
        own = [self.offsets[self.place]] if self.place in self.offsets else []
        for offsets in own or self.offsets.values():
            # behind the encoders a row is a patient's before it is a tile's
            if rows == int(offsets[-1]) and (own or rows != n):
                owner = torch.repeat_interleave(torch.arange(n, device=x.device), offsets.to(x.device).diff())
                position = torch.arange(rows, device=x.device) - offsets.to(x.device)[owner]
                return owner, position * _signed(GOLDEN)
        # An encoder may work on those alone who have tiles or visits.
        some = [torch.nonzero(offsets.to(x.device).diff())[:, 0] for offsets in own]
        who = [people for people in (torch.arange(n, device=x.device), *some) if len(people)] if x.ndim else []
        fitting = [p for p in who if rows == len(p)] or [p for p in who if rows % len(p) == 0]
        if fitting:
            people = fitting[0]
            index, each = torch.arange(rows, device=x.device), max(1, rows // len(people))
            return people[index // each], index % each * _signed(GOLDEN)
        raise UsageFault(
            f"cox.mode=exact: {self._where()} draws random numbers of the shape {list(x.shape)}, whose rows are "
            f"neither the {n} patients of the batch nor their tiles: set its dropout to 0, or cox.mode=batch"
        )


def _columns(x: Tensor) -> Tensor:
    """Int32 keys of all places of a row of `x`, one index after the other, so that padding of a later axis moves
    nobody's numbers."""
    columns = torch.zeros(1, dtype=torch.int64, device=x.device)
    for size in x.shape[1:]:
        steps = (torch.arange(size, device=x.device) + 1) * _signed(GOLDEN)
        columns = _mixed(columns[:, None] + steps).flatten()
    return columns.int()


def _signed(number: int) -> int:
    """The same 64 bits as a signed number."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _mixed(x: Tensor) -> Tensor:
    """Int64, each bit of which depends on all bits of `x` (the finaliser of SplitMix, Steele et al., OOPSLA 2014)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * _signed(factor)
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def _mixed_32(x: Tensor) -> Tensor:
    """The same of int32, in place (the finaliser of MurmurHash3, Appleby): several times as fast, and enough for bits
    whose rows and columns have been mixed before."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x.bitwise_xor_((x >> shift).bitwise_and_((1 << (32 - shift)) - 1))
        x.mul_((factor + (1 << 31)) % (1 << 32) - (1 << 31))
    return x.bitwise_xor_((x >> 16).bitwise_and_((1 << 16) - 1))
