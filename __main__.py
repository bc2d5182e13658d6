"""DGX Sparks as one inference endpoint: settings → facts → plan → components."""

import importlib
import threading

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env, is_config_secret

from components.problems import Refused
from components.remote import ask
from components.remote.reach import settled
from components.resources import ending
from components.settings import load


def main() -> None:
    project = pulumi.get_project()
    raw = {**get_config_env(), **CONFIG.get()}
    try:
        settings = settled(load(raw, project, encrypted={key for key in raw if is_config_secret(key)}))
        # What is imported below takes half a second, in which the Sparks are reached and answer.
        lines = ask.dial(settings)

        from components.plan.values import Identity
        from components.planning import planned

        threading.Thread(target=importlib.import_module, args=("components.resources.outputs",), daemon=True).start()
        identity = Identity(pulumi.get_organization(), project, pulumi.get_stack())
        plan = planned(settings, identity, lines)

        from components.resources.cluster import Cluster
        from components.resources.outputs import export

        cluster = Cluster("cluster", settings, plan)
    except Refused as refused:
        ending.refuse(refused)

    cluster.tell()
    export(cluster, settings)


ending.quietly()
main()
