from .text_sinks import complain as complain
from .text_sinks import console as console
from .text_sinks import csv_line as csv_line
from .text_sinks import fitting_name as fitting_name
from .text_sinks import printable as printable
from .text_sinks import say as say
from .text_sinks import say_data as say_data
from .text_sinks import visible as visible
