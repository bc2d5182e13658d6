import * as pulumi from "@pulumi/pulumi";
// Made by `pulumi package add ../../package`.
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
            "spark-1": "ssh-ed25519 AAAA…",
            "spark-2": "ssh-ed25519 AAAA…",
        },
    },
    serving: { maxModelLen: 65536 },
});

export const apiBase = llm.apiBase;
