"""Metrics: functions of feature arrays, the networks that give the features, and the judge that puts both together.

    network = load_network("resnet20_cifar10_fp16.safetensors")
    a, b = extract(network, images_a).features, extract(network, images_b).features
    frechet(a, b), kid(a, b), prdc(a, b, k=5)

Everything is computed in float64 on the CPU; images are uint8 (n, channels, height, width) on both sides.
"""
