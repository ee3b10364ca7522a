"""One mark and colour for each kind of images, the same in every figure that parts reals from fakes."""

from r2m.evaluate.image_kinds import FOREIGN, OWN, TRAINED, UNSEEN
from r2m.manifest import REAL
from r2m.report.figures.style import INK

# Paul Tol's vibrant colours, which no method has.
KIND_COLOURS = {REAL: INK, OWN: "#CC3311", TRAINED: "#009988", FOREIGN: "#EE7733", UNSEEN: "#33BBEE"}
KIND_MARKS = {REAL: "o", OWN: "s", TRAINED: "D", FOREIGN: "^", UNSEEN: "v"}
