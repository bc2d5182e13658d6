"""The one name of FastAPI that a custom authentication imports."""


class Request:
    pass
