"""What a process runs on: devices, threads, time, interruptions, progress."""
