"""What the checks of merges and of experiments share."""

from typing import TYPE_CHECKING, Any

from r2m.options import nearest

if TYPE_CHECKING:
    from r2m.params.whole import Params


def not_enabled(params: "Params", name: str) -> str:
    """Say of a merge variant that is not enabled whether it is switched off or unknown."""
    if name in params.merge.methods:
        return f"{name!r} is switched off; expected `merge.methods.{name}.enabled: true`, or another"
    return f"no merge is called {name!r}{nearest(name, params.variants)}"


def rank_beyond(params: "Params", options: Any) -> str:
    """Say of a method's options that their Real component has more directions than there are specialists."""
    real, count = getattr(options, "real", None), len(params.specialist_members)
    if real is None or real.space != "task" or real.rank <= count:
        return ""
    return f"real.rank {real.rank} exceeds the number of specialists; expected at most {count}"
