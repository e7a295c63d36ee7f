"""How fast the service is: open-loop load, honest latencies, and always against a floor in the same run."""
