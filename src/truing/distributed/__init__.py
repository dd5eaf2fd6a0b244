"""Runs with several processes or machines.

`process_group.ProcessGroup` wraps `torch.distributed`; `ray_launcher.run_on_ray` starts the
processes of one run on a Ray cluster.
"""
