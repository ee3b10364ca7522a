"""What the cards say of built-in forgeries."""

from r2m.forge import registry
from r2m.report.origins import CardContext, built_in, origins


def context(**forgeries: str) -> CardContext:
    generators = {
        name: {"family": registry.get(forge).family, "forge": forge, "label": f"The {name}"}
        for name, forge in forgeries.items()
    }
    return CardContext.model_validate({"generators": generators})


def test_nothing_is_said_without_built_in_forgeries() -> None:
    own = CardContext.model_validate({"generators": {"own": {"family": "FS", "images": "fakes"}}})
    assert list(built_in(own)) == []
    assert origins(own) == []


def test_classical_forgeries_are_called_so() -> None:
    text = " ".join(built_in(context(a="swap", b="up")))
    assert "FS: face swapping, EFS: entire face synthesis" in text
    assert "Classical image operations make the fakes of The a, The b." in text
    assert "network" not in text


def test_networks_that_several_generators_share_are_named() -> None:
    text = " ".join(built_in(context(a="gan", b="gan_swap", c="esrgan", d="swap")))
    assert "Neural networks make the fakes of The a, The b, The c." in text
    assert "Classical image operations make the fakes of The d." in text
    assert "One network is behind The a, The b." in text
    assert "The faces of The a are drawn from random numbers: no person whom they show exists." in text


def test_every_forgery_has_a_row_with_its_packages_and_options() -> None:
    raw = context(a="gan_swap", b="sbi").model_dump(mode="json")
    raw["generators"]["a"]["options"] = {"strength": 0.5}
    rows = origins(CardContext.model_validate(raw))[2:]
    assert rows[0].startswith("| The a | `gan_swap` | Paste the inverted face of the donor |")
    assert rows[0].endswith("| strength 0.5 | random_face |")
    assert "`sbi`" in rows[1]
    assert rows[1].endswith("| – | – |")


def test_summaries_are_sentences_of_their_own() -> None:
    for name in registry.names():
        summary = registry.get(name).summary
        assert summary
        assert summary[0].isupper()
        assert "\n" not in summary
        assert "strength" not in summary
