"""What tables and figures of experiments are told of generators, domains and variants."""

CONTEXT = {
    "generators": {"swap": {"family": "FS"}, "up": {"family": "EFS", "label": "Upsampler"}},
    "domains": {"drawn": {"role": "train"}, "sketch": {"role": "test"}},
    "variants": {"weight_averaging": "Averaging", "r2m": "R²M"},
}
