"""A real SuperLink and SuperNodes of Flower on loopback, with TLS and keys."""

import numpy as np
import pytest

from nsclc_mtl.federated.messages import same_question

pytestmark = pytest.mark.federated


def test_three_rounds(federation):
    def script(channel):
        assert channel.sites() == ["a", "b"]
        got = []
        for number in range(1, 4):
            x = np.arange(6, dtype="float32").reshape(2, 3) * number
            got.append(channel.ask(same_question("train", number, channel.sites(), arrays={"x": x}), 40.0))
        return got

    got = federation.serve(script, {"a": {"settings": {"add": 1.0}}, "b": {}})
    for number, answers in enumerate(got, start=1):
        x = np.arange(6, dtype="float32").reshape(2, 3) * number
        np.testing.assert_array_equal(answers["a"].arrays["x"], x + 1)
        np.testing.assert_array_equal(answers["b"].arrays["x"], x)
    for hospital in federation.hospitals:
        assert hospital.end() == 0, hospital.said()
