"""The server's side of a federation: what is asked of the sites, round by round, and what becomes of the answers.

Nothing here knows how questions travel. A round that too few sites answer well leaves the model as it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nsclc_mtl.bags.fitted import Fitted
from nsclc_mtl.federated import guard, masks
from nsclc_mtl.federated.fitting import Declared, FitTask, fit_together
from nsclc_mtl.federated.messages import Channel, Message, digest, packed
from nsclc_mtl.federated.plan import Plan
from nsclc_mtl.federated.state import put, taken
from nsclc_mtl.federated.update import State, Update, mean, trimmed_mean
from nsclc_mtl.learner import Learner
from nsclc_mtl.records import DataFault, IntegrityFault, TryAgain


@dataclass
class Round:
    """What became of a round: losses and patients by site, who was rejected or silent, and how far the model moved."""

    number: int
    sites: dict[str, dict[str, Any]] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)
    privacy: dict[str, dict[str, float]] = field(default_factory=dict)  # site -> what it has cost so far
    moved: float = 0.0
    done: bool = False


@dataclass
class Trained:
    """The model of a fold after all rounds, what was fitted for it, and what each round and site said."""

    fitted: Fitted
    learner: Learner
    rounds: list[Round]
    patients: dict[str, int]  # training patients by site
    metrics: dict[str, dict[str, Any]]  # site -> task -> metric on its test part
    said: list[str] = field(default_factory=list)  # what a reader should know of the rounds


class Server:
    """Asks the sites of a channel under a plan, for one fold.

    `learner` makes the untrained model of what was fitted; `fit_task` what a task fits on labels. `folder` keeps the
    model after every round, from which a server that was ended goes on, if `made_from` (a digest of what else the model
    depends on) is the same. `agreement` are digests of what server and sites must have configured alike, by section.
    """

    def __init__(
        self,
        channel: Channel,
        plan: Plan,
        declared: Declared,
        fit_task: FitTask,
        learner: Callable[[Fitted], Learner],
        folder: Path | None = None,
        made_from: str = "",
        agreement: Mapping[str, str] | None = None,
    ) -> None:
        declared.sound()
        self.channel, self.plan, self.declared, self.fit_task = channel, plan, declared, fit_task
        self.learner, self.folder, self.made_from = learner, folder, made_from
        self.agreement = dict(agreement or {})
        self.said: list[str] = []
        self._asked = 0
        self._publics: dict[str, bytes] = {}
        self._question = Message("none", 0)  # the last one that was asked
        self._usual = 0.0  # length of the sites' updates, against which a bad one stands out

    def train(self, fold: int, seed: int, steps: Callable[[int], tuple[int, int]]) -> Trained:
        """Everything of a fold: fitting, rounds, and what the sites say of their test parts.

        `steps` gives, for a number of training patients, epochs and optimiser steps that training on all of them
        takes. Raises TryAgain where a site that is needed does not answer, DataFault where there is too little.
        """
        words = {"fold": fold, "step": "survey", "agreement": self.agreement}
        seen = self._every("fit", words, self.channel.sites())
        patients = {site: int(message.words["patients"]) for site, message in seen.items()}
        self.said.append(f"fold {fold}: {len(patients)} sites with {sum(patients.values())} training patients")
        sites = sorted(seen)

        def ask(step: str, words: Mapping[str, Any], arrays: State | None = None) -> dict[str, Message]:
            return self._every("fit", {"fold": fold, "step": step, **words}, sites, arrays)

        fitted = fit_together(ask, self.declared.there(seen), self.fit_task, seen)
        learner = self.learner(fitted)
        self._publics = {s: bytes.fromhex(m.words["key"]) for s, m in seen.items()} if self.plan.secure else {}
        publics = {site: key.hex() for site, key in self._publics.items()}
        self._every("begin", {"fold": fold, "fitted": fitted.state(), "publics": publics}, sites)
        rounds = self._rounds(fold, seed, learner, patients, steps)
        answers = self._every("finish", {"fold": fold}, sites, taken(learner, self.plan.normalisation))
        metrics = {site: message.words["metrics"] for site, message in sorted(answers.items())}
        return Trained(fitted, learner, rounds, patients, metrics, list(self.said))

    def _rounds(
        self,
        fold: int,
        seed: int,
        learner: Learner,
        patients: Mapping[str, int],
        steps: Callable[[int], tuple[int, int]],
    ) -> list[Round]:
        plan, state = self.plan, taken(learner, self.plan.normalisation)
        of = plan.rounds or rounds_for(patients, steps, plan.local_epochs)
        history, state = self._kept(fold, state)
        failures = 0
        while len(history) < of:
            number = len(history)
            words = {"fold": fold, "number": number, "span": [number / of, (number + 1) / of], "seed": seed}
            made, state = self._round(number, words, state, patients)
            if not made.done:
                failures += 1
                if failures > plan.retries:
                    raise TryAgain(
                        f"round {number} of fold {fold}: {len(made.sites)} of {plan.min_sites} needed sites gave a "
                        f"sound answer in {failures} tries ({_why(made)}); the model is kept as it was: repeat the "
                        "command"
                    )
                continue
            failures = 0
            history.append(made)
            self._keep(fold, history, state)
        put(learner, state, plan.normalisation)
        return history

    def _round(
        self, number: int, words: Mapping[str, Any], state: State, patients: Mapping[str, int]
    ) -> tuple[Round, dict[str, np.ndarray]]:
        """One round and the model after it: the same as before where too few answers are sound."""
        made, plan = Round(number), self.plan
        if plan.secure:
            together = self._summed(made, words, state, patients)
        else:
            answers = self._answers(made, words, state, sorted(patients))
            updates = [
                Update(site, dict(m.arrays), m.words.get("n"), m.words.get("metrics") or {})  # type: ignore[arg-type]
                for site, m in answers.items()
            ]
            good, bad = guard.accepted(updates, state, state, plan, patients, self._usual)
            made.rejected |= bad
            made.sites = {update.site: {"n": update.n, **update.metrics} for update in good}
            together = None
            if len(good) >= plan.min_sites:
                together = mean(good) if plan.aggregation == "mean" else trimmed_mean(good, plan.trim)
                self._usual = guard.yardstick(good, state, self._usual)
        for site, why in sorted(made.rejected.items()):
            self.said.append(f"round {number}: the answer of {site} is rejected: {why}")
        if together is None:
            return made, dict(state)
        made.moved, made.done = guard.length(together, state), True
        return made, together

    def _answers(self, made: Round, words: Mapping[str, Any], state: State, sites: Sequence[str]) -> dict[str, Message]:
        """Answers of the round by site, without those that are silent or refuse, who are noted."""
        answers = self._ask("train", {**words, "sites": list(sites)}, sites, state)
        made.silent = sorted({*made.silent, *sites} - set(answers))
        for site in [site for site, message in answers.items() if message.kind == "refused"]:
            made.rejected[site] = str(answers.pop(site).words.get("sentence", "it refused"))
        for site, message in answers.items():
            if "privacy" in message.words:
                made.privacy[site] = message.words["privacy"]
        return dict(sorted(answers.items()))

    def _summed(
        self, made: Round, words: Mapping[str, Any], state: State, patients: Mapping[str, int]
    ) -> dict[str, np.ndarray] | None:
        """The mean of models that nobody has seen alone; None where it cannot be opened or is not sound.

        A sum of masked numbers opens only with all of its sites: where one is missing those that are left are asked
        again, by another question, for what they have trained already.
        """
        sites = sorted(patients)
        while len(sites) >= self.plan.min_sites:
            answers = self._answers(made, words, state, sites)
            for site in list(answers):
                if (wrong := guard.fault_of_masked(answers[site].arrays, state)) is not None:
                    made.rejected[site] = wrong
                    del answers[site]
            if len(answers) < len(sites):
                sites = sorted(answers)
                continue
            about = digest(packed(self._question))
            publics = {site: self._publics[site] for site in sites}
            try:
                together, n = masks.unmasked(
                    masks.summed({site: m.arrays for site, m in answers.items()}), state, publics, about
                )
            except IntegrityFault as fault:
                made.rejected["all"] = str(fault)
                return None
            most = sum(patients[site] for site in sites)
            wrong = guard.fault_of_sum(together, n, state, state, most, self.plan.norm_limit, self._usual)
            if wrong is not None:
                made.rejected["all"] = f"the sum {wrong}"
                return None
            self._usual = max(self._usual, guard.length(together, state))
            made.sites = {site: {"n": None, **(m.words.get("metrics") or {})} for site, m in answers.items()}
            return together
        return None

    # -----------------------------------------------------------------------------------------------------------------

    def _ask(
        self, kind: str, words: Mapping[str, Any], sites: Sequence[str], arrays: State | None = None
    ) -> dict[str, Message]:
        """Answers to this question, of its own number, by site."""
        self._asked += 1
        self._question = Message(kind, self._asked, arrays or {}, words)
        questions = dict.fromkeys(sites, self._question)
        answers = self.channel.ask(questions, self.plan.timeout_s)
        return {
            site: message
            for site, message in answers.items()
            if site in questions and message.round == self._asked and message.kind in (kind, "refused")
        }

    def _every(
        self, kind: str, words: Mapping[str, Any], sites: Sequence[str], arrays: State | None = None
    ) -> dict[str, Message]:
        """The answers of all these sites; those that say nothing are asked again. Raises TryAgain and DataFault."""
        answers: dict[str, Message] = {}
        for _ in range(self.plan.retries + 1):
            waiting = [site for site in sites if site not in answers]
            if not waiting:
                break
            answers |= self._ask(kind, words, waiting, arrays)
            refused = {site: m for site, m in answers.items() if m.kind == "refused"}
            if refused:
                raise DataFault(str(next(iter(refused.values())).words.get("sentence", "a site refused")))
        if len(answers) < max(len(sites), self.plan.min_sites):
            silent = ", ".join(sorted(set(sites) - set(answers))) or "none but these were there"
            raise TryAgain(
                f"{len(answers)} sites answered '{kind}', {max(len(sites), self.plan.min_sites)} are needed (silent: "
                f"{silent}); see that their clients run, and repeat the command"
            )
        return dict(sorted(answers.items()))

    def _kept(self, fold: int, state: dict[str, np.ndarray]) -> tuple[list[Round], dict[str, np.ndarray]]:
        """Rounds that an earlier start has finished, and the model after them."""
        from safetensors.numpy import load

        if self.folder is None or not (self.folder / f"rounds{fold}.safetensors").is_file():
            return [], state
        data = (self.folder / f"rounds{fold}.safetensors").read_bytes()
        found = load(data)
        head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        told = head["__metadata__"]
        same = {name: values.shape for name, values in found.items()} == {n: v.shape for n, v in state.items()}
        if not same or told["made_from"] != self.made_from:
            return [], state
        return [Round(**of) for of in json.loads(told["rounds"])], found

    def _keep(self, fold: int, history: Sequence[Round], state: State) -> None:
        from safetensors.numpy import save

        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"rounds{fold}.safetensors"
        aside = path.with_suffix(".tmp")
        told = {"rounds": json.dumps([asdict(made) for made in history]), "made_from": self.made_from}
        aside.write_bytes(save(dict(state), metadata=told))
        aside.replace(path)


def rounds_for(patients: Mapping[str, int], steps: Callable[[int], tuple[int, int]], local_epochs: int) -> int:
    """Rounds after which a site has taken as many optimiser steps, on average, as training on all patients takes.

    `steps` gives epochs and steps for a number of patients.
    """
    _, wanted = steps(sum(patients.values()))
    each = np.mean([max(1, taken_steps / max(1, epochs)) for epochs, taken_steps in map(steps, patients.values())])
    return max(1, math.ceil(wanted / (each * local_epochs)))


def _why(made: Round) -> str:
    told = [f"{site}: {why}" for site, why in made.rejected.items()] + [f"{site} was silent" for site in made.silent]
    return "; ".join(told) or "fewer sites than that take part"
