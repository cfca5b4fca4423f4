"""Training in several processes, one a GPU, started by torchrun.

The convention, for every method and task:

- A step works on one global batch. Each process gets a contiguous part of its images, the first
  ones an image more where the number does not divide (:func:`wsss.distributed.parts.part_of`).
- Each loss term is either a mean over the images of the process, or one number that is the same
  on all processes because it is computed from tensors that were collected from all of them
  (:func:`wsss.distributed.collectives.gathered`, :func:`wsss.distributed.collectives.total`).
- The loop weighs the loss of a process by its share of the images and SUMS gradients over the
  processes. Shares sum to 1, so that both kinds of terms count once: the gradient is that of the
  loss of the whole batch. Losses with ``sizes`` (:meth:`wsss.engine.task.Task.sizes`) are divided
  by the sizes of the global batch and weigh 1.
- The backward pass of what collects tensors sums gradients over the processes, too.

Gradients are summed after the backward pass, in large buckets. torch's ``DistributedDataParallel``
would send them while the backward pass still runs; it expects one ``forward`` a step in which
every parameter takes part, while methods here have several optimiser steps a batch, terms that
start late and several passes through one network.

Nothing in this package changes a run of one process.
"""
