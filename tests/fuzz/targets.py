"""All that is fuzzed, by name; hypothesis and atheris drive the same targets."""

from readers import READERS
from shard_readers import SHARD_READERS
from weight_readers import WEIGHT_READERS

TARGETS = {target.name: target for target in [*READERS, *WEIGHT_READERS, *SHARD_READERS]}
