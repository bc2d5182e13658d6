"""The only reader of stack config: what the user wrote, checked and typed.

Every mistake is reported at once (see `load`). Keys are written as in the stack file, in camelCase. stack.py has the
whole, the other files what belongs together; docs/configuration.md is made of them.
"""

from components.settings.beside import Role
from components.settings.loading import PLAIN, PROJECT, TOP_LEVEL, load
from components.settings.nodes import KEY_FILE, USER, Login, Node, NodeFabric, Ssh
from components.settings.stack import Settings

__all__ = ["KEY_FILE", "PLAIN", "PROJECT", "TOP_LEVEL", "USER", "Login", "Node", "NodeFabric", "Role", "Settings"]
__all__ += ["Ssh", "load"]
