"The one way in which the rules run pexpress."

load(":toolchain.bzl", "pexpress_of")

def run_pexpress(ctx, command, args, inputs, outputs, mnemonic, message):
    """Runs `pexpress compose COMMAND`.

    No shell, no environment, no network: what goes in is what the arguments name.

    Args:
      ctx: the rule's context
      command: what to compose
      args: Args, written to a file since there may be more than a command line takes
      inputs: depset of Files
      outputs: list of Files
      mnemonic: the action's
      message: what is shown while it runs
    """
    args.set_param_file_format("multiline")
    args.use_param_file("@%s", use_always = True)
    ctx.actions.run(
        executable = pexpress_of(ctx),
        arguments = ["compose", command, args],
        inputs = inputs,
        outputs = outputs,
        mnemonic = mnemonic,
        progress_message = message,
        env = {},
        use_default_shell_env = False,
        execution_requirements = {"block-network": "1"},
    )

def target_args(ctx, target):
    """Returns the arguments that say what to build for.

    Args:
      ctx: the rule's context
      target: PexTargetInfo

    Returns:
      Args
    """
    args = ctx.actions.args()
    args.add("--bootstrap=" + target.bootstrap.path)
    args.add("--python=" + target.python)
    args.add("--platform=" + target.platform)
    return args
