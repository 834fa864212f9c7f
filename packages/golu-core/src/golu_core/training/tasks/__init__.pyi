from .command_line import parsed_flags as parsed_flags
from .command_line import parsed_run_flags as parsed_run_flags
from .probes import Batch as Batch
from .probes import Probe as Probe
from .probes import spread_keys as spread_keys
from .probes import with_noise as with_noise
from .workloads import Workload as Workload
