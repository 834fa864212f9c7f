from .class_details import Curve as Curve
from .class_details import write_confusion as write_confusion
from .class_details import write_curves as write_curves
from .class_details import write_table as write_table
from .drawing import TitledImage as TitledImage
from .drawing import image_grid as image_grid
from .drawing import save_png as save_png
