"""What there is: skills, pairs, methods, selectors, presets, and what is trained."""

from __future__ import annotations


def list_all() -> None:
    """List skills, pairs, methods, selectors, presets, and what is trained."""
    from dexcompose_agents.artefacts.shipped import pretrained_folder
    from dexcompose_agents.attribution.selectors import SELECTORS
    from dexcompose_agents.methods.registry import method_names
    from dexcompose_agents.runtime.presets import PRESETS
    from dexcompose_envs import INTERACTION_SKILLS, PAIRS, RETENTION_SKILLS, env_id

    print("retention skills (A):   " + ", ".join(RETENTION_SKILLS))
    print("interaction skills (B): " + ", ".join(INTERACTION_SKILLS))
    print("pairs:")
    for pair in PAIRS:
        print(f"  {'-'.join(pair):28s} {env_id('-'.join(pair))}")
    print("methods:                " + ", ".join(method_names()) + ", or module:Class")
    print("selectors:              " + ", ".join(SELECTORS))
    print("presets:                " + ", ".join(PRESETS))
    for title, pattern in (("trained weights:", "*.safetensors"), ("masks:", "masks/*.json")):
        names = sorted(path.stem for path in pretrained_folder().glob(pattern))
        print(f"{title:23s} " + (", ".join(names) or "none"))
