from helmops.model.declarations import KINDS


def test_every_kind_is_named_as_its_model_and_knows_its_group() -> None:
    assert {(kind, model.api_group, model.versions) for kind, model in KINDS.items()} == {
        ("HelmRelease", "helm.toolkit.fluxcd.io", ("v2",)),
        ("HelmRepository", "source.toolkit.fluxcd.io", ("v1",)),
        ("GitRepository", "source.toolkit.fluxcd.io", ("v1",)),
        ("OCIRepository", "source.toolkit.fluxcd.io", ("v1",)),
        ("HelmChart", "source.toolkit.fluxcd.io", ("v1",)),
        ("Bucket", "source.toolkit.fluxcd.io", ("v1",)),
        ("Kustomization", "kustomize.toolkit.fluxcd.io", ("v1",)),
        ("ConfigMap", "", ("v1",)),
        ("Secret", "", ("v1",)),
        ("Alert", "notification.toolkit.fluxcd.io", ("v1beta3",)),
        ("Provider", "notification.toolkit.fluxcd.io", ("v1beta3",)),
        ("Receiver", "notification.toolkit.fluxcd.io", ("v1",)),
        ("ReleasePolicy", "helmops.dev", ("v1alpha1",)),
    }
