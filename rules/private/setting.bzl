"A build setting that holds a string."

# The setting that says what is built for.
TARGET = str(Label("//:target"))

SettingInfo = provider(
    doc = "The value of a build setting.",
    fields = {"value": "The string."},
)

def _string_setting_impl(ctx):
    value = ctx.build_setting_value
    if ctx.attr.values and value not in ctx.attr.values:
        fail("%s is one of %s, not %r" % (ctx.label, ", ".join(ctx.attr.values), value))
    return [SettingInfo(value = value)]

string_setting = rule(
    implementation = _string_setting_impl,
    build_setting = config.string(flag = True),
    attrs = {"values": attr.string_list(doc = "The values that it may have; any if empty.")},
    doc = "A string on the command line.",
)
