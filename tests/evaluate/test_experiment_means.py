import pandas as pd
import pytest

from r2m.errors import R2MError
from r2m.evaluate.experiment_means import protocol_means, set_aucs
from r2m.evaluate.protocols import EvaluationContext

CONTEXT = {
    "generators": {"swap": {"family": "FS"}, "up": {"family": "EFS", "label": "Upsampler"}},
    "domains": {"drawn": {"role": "train"}, "sketch": {"role": "test"}},
}


def test_protocol_means():
    context = EvaluationContext.model_validate(CONTEXT)
    rows = [
        {"row": row, "domain": domain, "split": split, "label": label, "generator": name, "logit": logit}
        for row, sign in (("good", 1), ("bad", -1))
        for domain, split in (("drawn", "val"), ("drawn", "test"), ("sketch", "test"))
        for label, name in ((0, "real"), (1, "swap"), (1, "up"))
        for logit in (sign * label, sign * label + 0.5)
    ]
    scores = pd.DataFrame(rows)
    aucs = set_aucs(scores, ["row"], context)
    assert len(aucs) == 2 * 3 * 2
    means = protocol_means(scores, ["row"], context)
    assert means.columns.tolist() == ["row", "val_auc", "in_distribution", "cross_dataset"]
    assert means["row"].tolist() == ["good", "bad"]
    assert means.iloc[0, 1:].tolist() == [1, 1, 1]
    assert means.iloc[1, 1:].tolist() == [0, 0, 0]
    with pytest.raises(R2MError, match="sketch/swap has fakes but no reals"):
        set_aucs(scores[(scores["domain"] != "sketch") | (scores["label"] == 1)], ["row"], context)
