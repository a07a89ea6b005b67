"""What is installed is what is pinned."""

from importlib.metadata import distributions

from livestep.deploy.sbom import UNPINNED, normalised, pinned, unlike_pins


def test_every_installed_package_is_pinned_to_its_version():
    found = [(one.metadata["Name"], one.version) for one in distributions()]
    assert len(found) > 50
    assert unlike_pins(found, pinned()) == []


def test_what_is_pinned_is_written_once():
    names = [normalised(name) for name in pinned()]
    assert len(names) == len(set(names)) and not UNPINNED & set(names)
    assert all(pinned().values())
