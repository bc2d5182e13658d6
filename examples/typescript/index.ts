import * as pulumi from "@pulumi/pulumi";
// Made by `pulumi install`, from `packages` in Pulumi.yaml.
import * as spark from "@pulumi/dgx-spark";

const config = new pulumi.Config();

const llm = new spark.cluster.Cluster("llm", {
    model: "gpt-oss-120b",
    nodes: [
        { name: "spark-1", host: "192.168.1.11" },
        { name: "spark-2", host: "192.168.1.12" },
    ],
    ssh: {
        hostKeys: {
            "spark-1": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleExa1",
            "spark-2": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleExa2",
        },
    },
    serving: { maxModelLen: 65536 },
    // The package keeps it a secret.
    apiKey: config.get("apiKey"),
});

export const apiBase = llm.apiBase;
