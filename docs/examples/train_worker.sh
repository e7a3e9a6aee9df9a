#!/bin/bash
# One of two workers of a run: train_worker.sh 0 on the first machine, train_worker.sh 1 on the second.
# Started again after a kill, it resumes from the last checkpoint. Ctrl-C and SIGTERM save a checkpoint and end it.
export TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:12345", "10.0.0.2:12345"]}, "task": {"type": "worker", "index": '$1'}}'

until python -m tf_reid.train --config identity --run /shared/runs/identity --set run.strategy=multi_worker; do
    status=$?
    case $status in
        75 | 137) sleep 10 ;; # another worker was lost, or this one was killed
        *) exit $status ;;
    esac
done
