"""What to write here instead of the words of other libraries, for messages about unknown keys, flags and names.

The command line imports this file before torch, so it imports nothing of ours."""

from __future__ import annotations

GROUPS: dict[str, str] = {
    "epochs epoch num_epochs max_epochs n_epochs num_train_epochs": (
        "training is counted in training.steps (or training.minutes); an epoch has as many steps as there are training "
        "samples, divided by training.samples_per_step"
    ),
    "batch_size batch bs train_batch_size per_device_train_batch_size": (
        "write training.samples_per_step, for a text corpus training.tokens_per_step"
    ),
    "lr rate base_lr": "write training.learning_rate",
    "early_stopping early_stop patience stop": (
        "a run does not stop early; its best checkpoint (checkpoints.best: val/loss) is kept and used"
    ),
    "class_weights class_weight balanced balance sampler weighted_sampler pos_weight": (
        "classes are not weighted; repeat the samples of rare classes in the training data"
    ),
    "wandb mlflow logger loggers report_to callbacks": (
        "metrics are written to RUN/metrics.jsonl and, with logging.tensorboard, for TensorBoard"
    ),
    "folds k_folds kfold k_fold cv stratify group split val_split test_size": (
        "data are split by hash, or by the files that data.dataset.train, val and test name"
    ),
    "fp16 bf16 amp mixed_precision dtype": "write training.precision: auto, fast, float32 or bfloat16",
    "detection object_detection detr yolo segmentation semantic_segmentation instance_segmentation": (
        "no task predicts boxes or masks; classification, regression and language_modeling predict for the whole image"
    ),
    "lora peft adapter adapters": "write training.freeze with the names of the parameters that are not trained",
    "accumulate_grad_batches gradient_accumulation_steps grad_accum": (
        "write training.rows_per_micro_batch: how many samples are computed at once"
    ),
    "accelerator gpus gpu cuda": "write training.device: auto, cpu or cuda",
    "weight_decay wd": "write training.optimizer: {use: adamw, weight_decay: 0.1}",
    "dropout": "write model.block: {dropout: 0.1}",
    "grad_clip gradient_clip_val max_grad_norm": "write training.clip",
    "hidden_size n_embd d_model embed_dim": "write model.width",
    "layers n_layer n_layers num_layers num_hidden_layers": "write model.depth",
    "n_head n_heads num_heads num_attention_heads": "write model.heads",
    "block_size max_length seq_len max_seq_len context_length n_positions": "write model.context",
    "max_steps max_iters num_steps": "write training.steps",
    "optim": "write training.optimizer: adamw or muon",
    "scheduler lr_scheduler": "write training.schedule",
    "warmup warmup_steps warmup_iters": "write training.schedule: {use: cosine, warmup: 100}",
    "workers num_workers": "data are read by a thread of the training process",
}
"""What to write, by the words of other libraries (separated by spaces)."""
HINTS = {word: hint for words, hint in GROUPS.items() for word in words.split()}


def hint_for(word: object) -> str:
    """What to write instead of a word of another library; empty for other words."""
    return HINTS.get(str(word).lower().replace("-", "_"), "")
