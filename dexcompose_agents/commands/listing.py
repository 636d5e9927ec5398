"""What there is: skills, pairs, methods, selectors, presets, and what is trained."""

from __future__ import annotations


def list_all() -> None:
    """List skills, pairs, methods, selectors, presets, and what is trained."""
    from dexcompose_agents.artefacts.shipped import pretrained_folder
    from dexcompose_agents.attribution.selectors import SELECTORS
    from dexcompose_agents.methods.registry import method_names
    from dexcompose_agents.runtime.presets import PRESETS
    from dexcompose_envs import env_id, pair_names, skill_names
    from dexcompose_envs.skills import make_skill

    for title, kind in (("retention skills (A):", "retention"), ("interaction skills (B):", "interaction")):
        print(title)
        for skill in skill_names(kind):
            print(f"  {skill:28s} {make_skill(skill).DESCRIPTION}")
    print("pairs:")
    for pair in pair_names():
        print(f"  {pair:28s} {env_id(pair)}")
    shipped = pretrained_folder()
    for title, names in (
        ("methods:", [*method_names(), "or module:Class"]),
        ("selectors:", SELECTORS),
        ("presets:", PRESETS),
        ("trained weights:", sorted(path.stem for path in shipped.glob("*.safetensors"))),
        ("masks:", sorted(path.stem for path in shipped.glob("masks/*.json"))),
    ):
        print(f"{title:30s} {', '.join(names) or 'none'}")
