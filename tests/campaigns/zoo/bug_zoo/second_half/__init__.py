"""The second half of the zoo, by the kind of layer; the diagnosis was not made for it."""

from . import attentions, conduct, gates, losses, maps, over_time, tables

SECOND = [
    *maps.BUGS,
    *gates.BUGS,
    *attentions.BUGS,
    *over_time.BUGS,
    *tables.BUGS,
    *losses.BUGS,
    *conduct.BUGS,
]
