"""Prints the alerts of compose as a resource of the Prometheus operator.

    .venv/bin/python deploy/kubernetes/rule.py > deploy/kubernetes/components/monitoring/rule.yaml

Kustomize cannot make it: alerts.yaml is no resource, and a replacement puts in text, not a tree. A test
compares the two.
"""

from pathlib import Path

import yaml

ALERTS = Path(__file__).parents[1] / "prometheus" / "alerts.yaml"


def rule() -> str:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    made = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "plumbline"},
        "spec": {"groups": groups},
    }
    head = "# Made from deploy/prometheus/alerts.yaml by deploy/kubernetes/rule.py: never edit it by hand.\n"
    return head + yaml.safe_dump(made, sort_keys=False, width=110, allow_unicode=True)


if __name__ == "__main__":
    print(rule(), end="")
