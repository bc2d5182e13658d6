"""DGX Sparks as one inference endpoint: settings → facts → plan → components."""

import importlib
import threading

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env, is_config_secret

from components.plan.values import Identity
from components.planning import planned
from components.problems import Refused, Severity
from components.remote.reach import settled
from components.resources import ending
from components.settings import load


def main() -> None:
    # The providers' SDKs take a quarter of a second to import, in which the Sparks are asked.
    threading.Thread(target=importlib.import_module, args=("components.resources.outputs",), daemon=True).start()
    identity = Identity(pulumi.get_organization(), pulumi.get_project(), pulumi.get_stack())
    raw = {**get_config_env(), **CONFIG.get()}
    try:
        settings = settled(load(raw, identity.project, encrypted={key for key in raw if is_config_secret(key)}))
        plan = planned(settings, identity)

        from components.resources.cluster import Cluster
        from components.resources.outputs import export

        cluster = Cluster("cluster", settings, plan)
    except Refused as refused:
        ending.refuse(refused)

    for warning in plan.warnings:
        (pulumi.info if warning.severity is Severity.NOTE else pulumi.warn)(str(warning), cluster)
    export(cluster, settings)


ending.quietly()
main()
