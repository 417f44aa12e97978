"""One hospital in a federation: it answers the server's questions about its own patients, and tells of no patient."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pytorch_lightning as pl

from nsclc_mtl.bags.cache import BagCache
from nsclc_mtl.bags.datamodule import FoldData
from nsclc_mtl.bags.fitted import Fitted
from nsclc_mtl.federated import accountant, masks, scaling, summaries
from nsclc_mtl.federated.accountant import Ledger, Steps, together
from nsclc_mtl.federated.local import Memory, Work, local_update
from nsclc_mtl.federated.messages import Message, digest, packed
from nsclc_mtl.federated.plan import Plan
from nsclc_mtl.federated.state import put
from nsclc_mtl.learner import Learner
from nsclc_mtl.records import Fault, IntegrityFault, Manifest, UsageFault


class Parts(Protocol):
    """What a configuration makes at a site; handed in, as rooms do not know configurations."""

    def learner(self, fitted: Fitted) -> Learner:
        """An untrained learner, of the shared parts."""
        ...

    def data(self, manifest: Manifest, rows: pd.DataFrame, cache: BagCache, fitted: Fitted) -> FoldData:
        """The loaders of a fold of the site."""
        ...

    def trainer(self, epochs: int, callbacks: Sequence[pl.Callback]) -> pl.Trainer:
        """Lightning's Trainer for the epochs of a round."""
        ...

    def judged(
        self, manifest: Manifest, rows: pd.DataFrame, part: str, learner: Learner, data: FoldData
    ) -> dict[str, Any]:
        """The main metric of every task on a part of the site's patients: task -> metric, value, patients, events."""
        ...

    def conclude(self, manifest: Manifest, rows: pd.DataFrame, learner: Learner, data: FoldData) -> None:
        """Writes the fold into the site's own run folder, with what is fitted on its own patients for trust."""
        ...


@dataclass
class Begun:
    """A fold that is being trained. `last` is what the site made of a round's model, should it be asked again."""

    rows: pd.DataFrame
    data: FoldData
    learner: Learner
    publics: dict[str, bytes]  # site -> public key of secure summation
    memory: Memory = field(default_factory=Memory)
    last: tuple[str, Trained] | None = None


Trained = tuple[dict[str, np.ndarray], int, dict[str, Any]]  # state, patients, words


class Site:
    """A site by its name, its patients, and its split (patient_id, fold, part).

    The same question twice has the same answer, and a round is trained once: a server that did not hear it may ask
    again. What a fold begins with, what was masked, and what privacy has cost are kept in `folder`, so that a site that
    was started anew goes on. `roster` are the sites' public keys of secure summation as agreed on by another way; None:
    each site's are those that the server hands on. `agreement` are digests of the configuration by section, which the
    server must have alike. `say` is told what each round of a private training has cost.
    """

    def __init__(
        self,
        name: str,
        manifest: Manifest,
        splits: pd.DataFrame,
        plan: Plan,
        parts: Parts,
        folder: Path | None = None,
        key: tuple[bytes, bytes] | None = None,
        roster: Mapping[str, bytes] | None = None,
        agreement: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        manifest.patients = manifest.patients.assign(site=name)  # ComBat and the report know the site by this name
        self.name, self.manifest, self.splits, self.plan, self.parts = name, manifest, splits, plan, parts
        self.folder, self.cache, self.roster = folder, BagCache(), roster
        self.agreement, self.say = dict(agreement or {}), say
        self._key = (key or masks.keys()) if plan.secure else (b"", b"")
        self._once = masks.Once(None if folder is None else folder / "masked.txt")
        self._ledger = Ledger(None if folder is None else folder / "privacy.jsonl")
        self._begun: dict[int, Begun] = {}
        self._last: tuple[str, Message] | None = None
        self._kinds: dict[str, Callable[[Message, pd.DataFrame], Message]] = {
            "fit": self._fit,
            "begin": self._begin,
            "train": self._train,
            "finish": self._finish,
        }

    def answer(self, question: Message) -> Message:
        """The answer to a question; of kind `refused`, with a sentence, where there is none to be had."""
        asked = digest(packed(question))
        if self._last is not None and self._last[0] == asked:
            return self._last[1]
        try:
            if question.kind not in self._kinds:
                raise UsageFault(f"a question of the kind '{question.kind}' is not known: update the older side")
            answer = self._kinds[question.kind](question, self._rows(int(question.words["fold"])))
        except Fault as fault:
            words = {"sentence": f"{self.name}: {fault}", "code": fault.exit_code}
            answer = Message("refused", question.round, words=words)
        self._last = asked, answer
        return answer

    def _rows(self, fold: int) -> pd.DataFrame:
        rows = self.splits[self.splits["fold"] == fold]
        if (rows["part"] == "train").sum() < self.plan.least:
            raise UsageFault(f"fold {fold} has fewer than federated.least={self.plan.least} training patients here")
        return rows

    def _own(self, rows: pd.DataFrame) -> summaries.Own:
        train = list(rows.loc[rows["part"] == "train", "patient_id"])
        return summaries.Own(self.manifest, train, self.cache, self.plan.least)

    def _fit(self, question: Message, rows: pd.DataFrame) -> Message:
        step = str(question.words["step"])
        if step not in summaries.STEPS:
            raise UsageFault(f"a step '{step}' of the fitting is not known: update the older side")
        if step == "survey":
            self._agreed(question.words.get("agreement") or {})
        arrays, words = summaries.answer(step, self._own(rows), question.words, question.arrays)
        if step == "survey" and self.plan.secure:
            words["key"] = self._key[1].hex()
        return Message("fit", question.round, arrays, words)

    def _agreed(self, theirs: Mapping[str, str]) -> None:
        unlike = sorted(word for word in {*theirs, *self.agreement} if theirs.get(word) != self.agreement.get(word))
        if unlike:
            raise UsageFault(
                f"server and site are configured otherwise in {', '.join(unlike)}: give both the same words (mtl train "
                "--show prints them), cohort.root, paths and device apart"
            )

    def _begin(self, question: Message, rows: pd.DataFrame) -> Message:
        fold = int(question.words["fold"])
        self._start(fold, rows, question.words)
        if self.folder is not None:
            self._kept(fold).parent.mkdir(parents=True, exist_ok=True)
            self._kept(fold).write_text(json.dumps(question.words) + "\n", encoding="utf-8")
        return Message("begin", question.round)

    def _kept(self, fold: int) -> Path:
        assert self.folder is not None
        return self.folder / f"begun{fold}.json"

    def _start(self, fold: int, rows: pd.DataFrame, words: Mapping[str, Any]) -> Begun:
        try:
            fitted = Fitted.load(words["fitted"])
            publics = {str(site): bytes.fromhex(key) for site, key in words["publics"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as wrong:
            raise IntegrityFault("what was fitted together is not of this version: update the older side") from wrong
        if self.roster is not None and any(self.roster.get(site) != key for site, key in publics.items()):
            raise IntegrityFault(
                f"{self.name}: the server names another key of secure summation than the roster has; ask the other "
                "sites, and do not go on before it is known why"
            )
        if self.plan.scaling == "site":
            scaling.by_own(fitted, self._own(rows))
        data = self.parts.data(self.manifest, rows, self.cache, fitted)
        self._begun[fold] = Begun(rows, data, self.parts.learner(fitted), publics)
        return self._begun[fold]

    def begun(self, fold: int) -> Begun:
        """What the fold is trained with. KeyError where it was not begun."""
        return self._begun[fold]

    def _fold(self, question: Message, rows: pd.DataFrame) -> Begun:
        fold = int(question.words["fold"])
        if fold in self._begun:
            return self._begun[fold]
        if self.folder is not None and self._kept(fold).is_file():
            return self._start(fold, rows, json.loads(self._kept(fold).read_text(encoding="utf-8")))
        raise UsageFault(f"fold {fold} was not begun here; the server must send what was fitted first")

    def _train(self, question: Message, rows: pd.DataFrame) -> Message:
        begun, words = self._fold(question, rows), question.words
        same = digest(packed(Message("round", int(words["number"]), question.arrays)))
        if begun.last is None or begun.last[0] != same:
            begun.last = same, self._trained(begun, question)
        state, n, told = begun.last[1]
        if not self.plan.secure:
            return Message("train", question.round, state, {"n": n, **told})
        about = digest(packed(question))
        publics = {site: begun.publics[site] for site in words["sites"] if site in begun.publics}
        hidden = masks.masked(state, n, self.name, self._key[0], publics, about)
        self._once.said(about, hidden)
        return Message("train", question.round, hidden, told)

    def _trained(self, begun: Begun, question: Message) -> Trained:
        """The model of a round after the site's training. Of a private one no loss is told: losses carry no noise."""
        words, plan, fold = question.words, self.plan, int(question.words["fold"])
        told: dict[str, Any] = {}
        if plan.privacy is not None:
            draws = begun.data.train_dataloader()
            steps = Steps(plan.privacy.noise, float(draws.q), plan.local_epochs * len(draws))  # type: ignore[union-attr]
            epsilon = self._ledger.take(fold, steps, plan.privacy.delta, plan.privacy.epsilon)
            every = together(self._ledger.of(), plan.privacy.delta)
            spent = accountant.said(plan.privacy, self._ledger.of(fold), len(begun.data.parts["train"]))
            self.say(f"fold {fold}, {spent}; over all folds epsilon={every:.3g}")
            told["privacy"] = {"epsilon": epsilon, "epsilon_all_folds": every, "delta": plan.privacy.delta}
        work = Work(
            begun.learner,
            self.parts.trainer,
            epochs=plan.local_epochs,
            round=int(words["number"]),
            span=(float(words["span"][0]), float(words["span"][1])),
            seed=int(words["seed"]),
            proximal=plan.proximal,
            normalisation=plan.normalisation,
            memory=begun.memory,
        )
        state, n, losses = local_update(question.arrays, begun.data, work)
        return state, n, {**told, "metrics": losses if plan.privacy is None else {}}

    def _put(self, question: Message, rows: pd.DataFrame) -> Begun:
        begun = self._fold(question, rows)
        put(begun.learner, question.arrays, self.plan.normalisation)
        begun.learner.eval()
        return begun

    def _finish(self, question: Message, rows: pd.DataFrame) -> Message:
        begun = self._put(question, rows)
        self.parts.conclude(self.manifest, rows, begun.learner, begun.data)
        told = self.parts.judged(self.manifest, rows, "test", begun.learner, begun.data)
        return Message("finish", question.round, words={"metrics": self._enough(told)})

    def _enough(self, told: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Metrics that stand on enough patients, and on enough events and others."""
        return {task: dict(of) for task, of in told.items() if of["n"] >= self.plan.least}
