"""The independence loss: every estimator at several shares of the encoder's gradient.

    python launch/sweep.py --config=configs/finetune_encodec_small.py --config.data.source=folder:music \
        --sweep=configs/sweeps/independence.py --workdir=runs/study

Points: none, KIND-SHARE, KIND-delay-SHARE (streams aligned as the delay pattern does) and
KIND-given-past-SHARE (streams less what the frame before predicts of them).
"""

from indep_jax.independence import loss

STREAMS = {
    "": {},
    "-delay": {"loss.independence.delay": True},
    "-given-past": {"loss.independence.condition": 1},
}
SHARES = (0.1, 0.3, 1.0)


def get_points():
    points = {"none": {"loss.independence.kind": "none"}}
    for kind in loss.KINDS:
        for name, streams in STREAMS.items():
            for share in SHARES:
                points[f"{kind}{name}-{share:g}"] = {
                    "loss.independence.kind": kind,
                    "loss.independence.share": share,
                    "loss.independence.condition": 0,
                    **streams,
                }
    return points
