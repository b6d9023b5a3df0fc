"""KubeRay's v1 kinds as far as our manifests use them, written from its API types (1.5, the first with `authOptions`).

The operator's own CRDs are not to be had offline. A field that is not named here is refused: add it from the API types, so
that a misspelt one cannot pass for one we do not know.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=47)]
"""KubeRay appends to the names of its own: more than 47 characters and the pods get no valid one."""
PodTemplate = dict[str, Any]
"""Checked against the schema of core kinds, not here."""


class _Kind(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Metadata(_Kind):
    name: Name
    namespace: Name
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class AuthOptions(_Kind):
    mode: Literal["token", "disabled"]


class HeadGroup(_Kind):
    rayStartParams: dict[str, str] = {}
    template: PodTemplate
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None


class WorkerGroup(_Kind):
    groupName: Name
    replicas: Annotated[int, Field(ge=0)]
    minReplicas: Annotated[int, Field(ge=0)]
    maxReplicas: Annotated[int, Field(ge=0)]
    rayStartParams: dict[str, str] = {}
    template: PodTemplate
    numOfHosts: Annotated[int, Field(ge=1)] = 1
    idleTimeoutSeconds: int | None = None


class RayClusterSpec(_Kind):
    rayVersion: str
    authOptions: AuthOptions
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup] = []
    enableInTreeAutoscaling: bool | None = None


class RayJobSpec(_Kind):
    entrypoint: str
    rayClusterSpec: RayClusterSpec
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"] = "K8sJobMode"
    shutdownAfterJobFinishes: bool = False
    ttlSecondsAfterFinished: Annotated[int, Field(ge=0)] = 0
    activeDeadlineSeconds: Annotated[int, Field(gt=0)] | None = None
    backoffLimit: Annotated[int, Field(ge=0)] = 0
    runtimeEnvYAML: str | None = None
    suspend: bool = False


class RayServiceSpec(_Kind):
    serveConfigV2: str
    rayClusterConfig: RayClusterSpec


class RayJob(_Kind):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec


class RayService(_Kind):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayService"]
    metadata: Metadata
    spec: RayServiceSpec


KINDS: dict[str, type[RayJob] | type[RayService]] = {"RayJob": RayJob, "RayService": RayService}
