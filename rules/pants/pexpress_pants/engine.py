"""What the rules ask of Pants' engine, in the words of the Pants that runs.

Pants 2.17 has `Get`; newer ones call rules by their names, and at last have no `Get`. Both modules have the same
functions. Which one is used is found by looking, not by a version.
"""

import pants.engine.rules

if hasattr(pants.engine.rules, "Get"):
    from pexpress_pants.engine_get import *  # noqa: F403
else:
    from pexpress_pants.engine_call import *  # noqa: F403
