from pathlib import Path

from model_training.demo.personas import demo_personas
from model_training.demo.world import DemoWorld, write_files
from services.core.data_folder.personas import read_personas, write_personas
from services.deployment.demo_walk import open_demo_world


def test_opening_the_demo_world_writes_its_personas_once(tmp_path: Path) -> None:
    write_files(tmp_path / "demo-world", num_items=20, num_users=8)
    open_demo_world(str(tmp_path))
    written = read_personas(str(tmp_path))
    assert written == demo_personas(DemoWorld(num_items=20, num_users=8))
    write_personas(str(tmp_path), written[:2])
    open_demo_world(str(tmp_path))
    assert read_personas(str(tmp_path)) == written[:2]
