"""Twenty real nodes that know one bootstrap node: they find each other, and all hear all."""

import trio

from protocol import limits

COUNT = 20


async def test_every_message_reaches_every_node_from_one_bootstrap(start) -> None:
    hub = await start(1)
    nodes = [hub]
    for seed in range(2, COUNT + 1):
        nodes.append(await start(seed, bootstrap=hub.network.addresses))
    with trio.fail_after(60):
        for node in nodes:
            # They met one node, and are connected to as many as they want.
            await node.until(lambda n=node: len(n.network.peers) >= limits.PEERS_WANTED)
            await node.network.wait_topic_peers(limits.PEERS_WANTED)
        for number, node in enumerate(nodes):
            await node.network.publish(b"%d" % number)
        for node in nodes:
            await node.until(lambda n=node: len(n.messages) >= COUNT)
    everything = sorted(b"%d" % number for number in range(COUNT))
    for node in nodes:
        assert sorted(node.messages) == everything  # each once
    degrees = sorted(len(node.network.peers) for node in nodes[1:])
    assert degrees[-1] < COUNT - 1, "a full mesh: the degree is not bounded"
    assert sum(degrees) / len(degrees) <= 2 * limits.PEERS_WANTED


async def test_nodes_that_lost_their_bootstrap_still_hear_each_other(start) -> None:
    hub = await start(1)
    nodes = [await start(seed, bootstrap=hub.network.addresses) for seed in range(2, 7)]
    with trio.fail_after(60):
        for node in nodes:
            await node.network.wait_topic_peers(len(nodes))
        await hub.stop()
        for node in nodes:
            await node.until(lambda n=node: (hub.key, False) in n.peer_events)
        await nodes[0].network.publish(b"without a hub")
        for node in nodes:
            await node.until(lambda n=node: b"without a hub" in n.messages)
