"""DGX Sparks as one inference endpoint: settings → facts → plan → components."""

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env, is_config_secret

from components.building import converge
from components.problems import Refused
from components.resources import ending
from components.settings import load


def main() -> None:
    raw = {**get_config_env(), **CONFIG.get()}
    try:
        settings = load(raw, pulumi.get_project(), encrypted={key for key in raw if is_config_secret(key)})
        cluster = converge("cluster", settings)
    except Refused as refused:
        ending.refuse(refused)

    from components.resources.outputs import export

    export(cluster, cluster.settings)


ending.quietly()
main()
