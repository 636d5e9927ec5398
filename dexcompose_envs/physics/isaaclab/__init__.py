"""Isaac Lab 3 behind the engine's protocol: the same scenes as USD, in Isaac Lab's own scene, on Newton.

This is Isaac Lab's API over Newton's MuJoCo-Warp solver, without Isaac Sim; PhysX would read the same USD, but only
where Isaac Sim is installed. Nothing in here is imported unless somebody asks for it.
"""
