from .devices import default_device as default_device
