"""The rules as a Pulumi policy pack: `pulumi preview --policy-pack policy` (docs/operations.md)."""

from __future__ import annotations

from pulumi_policy import (
    EnforcementLevel,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)
from rules import RULES, Rule


def policy(rule: Rule) -> ResourceValidationPolicy:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        for text in rule.wrong(args.resource_type, args.props):
            report(f"{args.name} {text}")

    level = EnforcementLevel.MANDATORY if rule.mandatory else EnforcementLevel.ADVISORY
    return ResourceValidationPolicy(name=rule.name, description=rule.text, validate=validate, enforcement_level=level)


PolicyPack(name="dgx-spark", policies=[policy(rule) for rule in RULES])
