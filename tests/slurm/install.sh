#!/bin/sh
# Debian or Ubuntu: the few packages that tests/slurm needs. No daemon is started; the tests do that themselves.
set -eu
apt-get update
apt-get install --yes --no-install-recommends slurmctld slurmd slurm-client slurm-wlm-basic-plugins
