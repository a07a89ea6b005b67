"""The installed packages are the pinned ones."""

from importlib.metadata import distributions

from livestep.deploy.sbom import UNPINNED, normalized, pinned, unlike_pins


def test_every_installed_package_is_pinned_to_its_version():
    found = [(one.metadata["Name"], one.version) for one in distributions()]
    assert len(found) > 50
    assert unlike_pins(found, pinned()) == []


def test_every_package_is_pinned_once():
    names = [normalized(name) for name in pinned()]
    assert len(names) == len(set(names)) and not UNPINNED & set(names)
    assert all(pinned().values())
