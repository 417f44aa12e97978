"""Names of tasks and modalities that the network cannot bear: they are its own words."""

from __future__ import annotations

from collections.abc import Iterable

from nsclc_mtl.records import DataFault

# The parts of the network stand under the names of tasks and modalities in torch's ModuleDict and ParameterDict, which
# refuse the names of their own attributes. Written out, because importing torch to ask takes seconds.
_OF_TORCH = """
    T_destination add_module apply bfloat16 buffers call_super_init children clear compile copy cpu cuda double
    dump_patches eval extra_repr float forward fromkeys get get_buffer get_extra_state get_parameter get_submodule half
    ipu items keys load_state_dict modules mtia named_buffers named_children named_modules named_parameters parameters
    pop popitem register_backward_hook register_buffer register_forward_hook register_forward_pre_hook
    register_full_backward_hook register_full_backward_pre_hook register_load_state_dict_post_hook
    register_load_state_dict_pre_hook register_module register_parameter register_state_dict_post_hook
    register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule setdefault share_memory state_dict to
    to_empty train training type update values xpu zero_grad
"""
TAKEN = frozenset(_OF_TORCH.split())
TOTAL = "loss"  # the column of the training log that holds the sum over the tasks


def refuse(names: Iterable[str], group: str, cohort: str) -> None:
    """Raises DataFault at the first name among the cohort's `group` (tasks, modalities) that cannot be used."""
    for name in map(str, names):
        if name in TAKEN or not name or name[0] == "_" or {".", "/"} & set(name) or (name, group) == (TOTAL, "tasks"):
            raise DataFault(
                f"cohort={cohort}: '{name}' cannot be the name of one of its {group}, because the network uses such "
                f"words itself; give it another name in cohort.{group} ('{name.strip('_./') or 'my'}_1' would do)"
            )
