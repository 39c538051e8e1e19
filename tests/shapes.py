"""How annotations are checked while testing: every call of the package's functions, by beartype, an int being a
float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
