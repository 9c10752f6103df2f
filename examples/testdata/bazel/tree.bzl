"A rule whose output is a directory."

def _tree_impl(ctx):
    out = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.run_shell(
        inputs = [ctx.file.src],
        outputs = [out],
        arguments = [ctx.file.src.path, out.path],
        command = "mkdir -p $2/sub/empty && cp $1 $2/sub/a && echo 'echo hi' > $2/run.sh && chmod +x $2/run.sh" +
                  (" && ln -s %s $2/sub/link" % ctx.attr.link if ctx.attr.link else ""),
    )
    return [DefaultInfo(files = depset([out]))]

tree = rule(
    implementation = _tree_impl,
    attrs = {
        "link": attr.string(),
        "src": attr.label(allow_single_file = True),
    },
)
