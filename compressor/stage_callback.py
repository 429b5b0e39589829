"""When the trainer calls the stages: at the beginning and the end of steps, epochs and checkpoints."""

from pathlib import Path

from transformers import TrainerCallback

from compressor.stage_checkpoint import STATE_FILE, CheckpointError


class StageCallback(TrainerCallback):
    """Ties the stages of a :class:`compressor.trainer.CompressionTrainer` to its steps."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        if self.trainer._resumed_from is not None:
            self.trainer.restore(self.trainer._resumed_from)

    def on_epoch_begin(self, args, state, control, **kwargs):
        trainer = self.trainer
        if trainer.row_order is not None:
            trainer.row_order.epoch = state.global_step // trainer.steps_per_epoch

    def on_step_begin(self, args, state, control, **kwargs):
        trainer = self.trainer
        stage = trainer.span.stage
        if stage.method != "dense":
            trainer.keep_teacher()
        trainer.set_dropout(stage)
        logs = trainer.stages.enter(stage, trainer.optimizer)
        logs |= trainer.stages.begin_maps(stage)
        if logs:
            trainer.log(logs)
        if stage.method == "quantize":
            trainer.enter_integers(stage)
        trainer.stages.before_forward(stage, state.global_step - trainer.span.start)

    def on_optimizer_step(self, args, state, control, **kwargs):
        trainer = self.trainer
        trainer.stages.after_optimizer_step(trainer.span.stage,
                                            trainer.schedule.relative_rate(state.global_step))

    def on_step_end(self, args, state, control, **kwargs):
        trainer = self.trainer
        step, log_due = state.global_step, control.should_log
        span = trainer.schedule.span_at(step - 1)
        done, method = step - span.start, trainer.stages.method
        logs = method.end_step(span, done, trainer.optimizer)
        if done % args.logging_steps == 0 or step == span.end:
            logs |= method.report()
        if logs:
            trainer.log({f"{method.name}_{key}": value for key, value in logs.items()})
        control.should_log = log_due  # that takes the loss's own log for done
        training = trainer.recipe.training
        control.should_evaluate |= (trainer.eval_dataset is not None
                                    and trainer.schedule.is_due(step, training.evaluations))
        control.should_save |= trainer.schedule.is_due(step, training.saves)
        if trainer.must_stop():
            control.should_save = control.should_training_stop = True


def latest_checkpoint(folder):
    """The newest complete checkpoint folder; CheckpointError if there is none."""
    complete = [path for path in Path(folder).glob("checkpoint-*")
                if (path / STATE_FILE).is_file() and path.name.split("-")[1].isdigit()]
    if not complete:
        raise CheckpointError(f"{folder}: no complete checkpoint to resume from")
    return str(max(complete, key=lambda path: int(path.name.split("-")[1])))
