from .analysis_model import AnalysisModel as AnalysisModel
from .analysis_model import Batch as Batch
from .analysis_model import spread_keys as spread_keys
from .analysis_model import with_noise as with_noise
from .command_line import parsed_flags as parsed_flags
from .command_line import parsed_run_flags as parsed_run_flags
from .timing_model import TimingModel as TimingModel
