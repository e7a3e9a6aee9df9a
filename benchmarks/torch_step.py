"""DG-Net's networks and joint step in plain PyTorch, for `benchmarks.torch_dgnet`.

Networks, losses and optimizers are those of configs/dgnet_market1501.yaml. Every set of images goes through every
network on its own, as in the authors' trainer.
"""

import torch
import torch.nn.functional as F
from torch import nn

IDENTITIES = 751
PARAMETERS = [380_544, 13_000_131, 1_025_571]  # of E_s, G and D: those of our networks


class Bottleneck(nn.Module):
    def __init__(self, cin, mid, stride, shortcut):
        super().__init__()
        self.a, self.na = nn.Conv2d(cin, mid, 1, bias=False), nn.BatchNorm2d(mid)
        self.b, self.nb = nn.Conv2d(mid, mid, 3, stride, 1, bias=False), nn.BatchNorm2d(mid)
        self.c, self.nc = nn.Conv2d(mid, 4 * mid, 1, bias=False), nn.BatchNorm2d(4 * mid)
        self.short = (
            nn.Sequential(nn.Conv2d(cin, 4 * mid, 1, stride, bias=False), nn.BatchNorm2d(4 * mid)) if shortcut else None
        )

    def forward(self, x):
        y = F.relu(self.na(self.a(x)), True)
        y = F.relu(self.nb(self.b(y)), True)
        y = self.nc(self.c(y))
        return F.relu(y + (x if self.short is None else self.short(x)))


def resnet50(last_stride):
    parts, cin = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)], 64
    for mid, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, last_stride)):
        for i in range(count):
            parts.append(Bottleneck(cin, mid, stride if i == 0 else 1, i == 0))
            cin = 4 * mid
    return nn.Sequential(*parts)


class Head(nn.Module):
    def __init__(self, drop):
        super().__init__()
        self.embed, self.classify = (
            nn.Sequential(nn.Linear(2048, 512), nn.BatchNorm1d(512)),
            nn.Sequential(nn.Dropout(drop), nn.Linear(512, IDENTITIES)),
        )

    def forward(self, x):
        return self.classify(self.embed(x))


class AppearanceEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.primary, self.fine = resnet50(1), Head(0.5), Head(0.75)

    def forward(self, x):
        maps = self.body(x)
        code = F.adaptive_max_pool2d(maps, (4, 1)).flatten(1)
        pooled = maps.amax((2, 3))
        return code, self.primary(pooled), self.fine(pooled)


class Teacher(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = resnet50(2), Head(0.5)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class ConvBlock(nn.Module):
    def __init__(self, cin, cout, k, stride=1, dilation=1, norm=None, act=True):
        super().__init__()
        pad = dilation * (k - 1) // 2
        self.pad = nn.ReflectionPad2d(pad) if pad else nn.Identity()
        self.conv = nn.Conv2d(cin, cout, k, stride, dilation=dilation)
        self.norm = nn.InstanceNorm2d(cout) if norm == "in" else ImageNorm(cout) if norm == "ln" else nn.Identity()
        self.act = nn.LeakyReLU(0.2, True) if act else nn.Identity()

    def forward(self, x):
        return self.act(self.norm(self.conv(self.pad(x))))


class ImageNorm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.rand(c)), nn.Parameter(torch.zeros(c))

    def forward(self, x):
        flat = x.view(x.size(0), -1)
        mean, std = flat.mean(1).view(-1, 1, 1, 1), flat.std(1).view(-1, 1, 1, 1)
        return (x - mean) / (std + 1e-5) * self.gamma.view(1, -1, 1, 1) + self.beta.view(1, -1, 1, 1)


class Res(nn.Module):
    def __init__(self, c, norm=None):
        super().__init__()
        self.two = nn.Sequential(ConvBlock(c, c, 3, norm=norm), ConvBlock(c, c, 3, norm=norm, act=False))

    def forward(self, x):
        return x + self.two(x)


class StructureEncoder(nn.Module):
    def __init__(self, w=32):
        super().__init__()
        layers, cin = [], 1
        for c, s in ((w // 2, 2), (w, 1), (w, 1), (2 * w, 2)):
            layers.append(ConvBlock(cin, c, 3, s, norm="in"))
            cin = c
        layers += [Res(2 * w, "in") for _ in range(4)]
        self.body = nn.Sequential(*layers)
        self.fields = nn.ModuleList([ConvBlock(2 * w, w, 1, norm="in", act=False)])
        for d in (3, 6, 9):
            self.fields.append(
                nn.Sequential(ConvBlock(2 * w, w, 1, norm="in"), ConvBlock(w, w, 3, dilation=d, norm="in", act=False))
            )
        self.last = ConvBlock(4 * w, 4 * w, 1, norm="in", act=False)

    def forward(self, x):
        x = self.body(x.mean(1, keepdim=True))
        return self.last(torch.cat([f(x) for f in self.fields], 1))


class AdaBlock(nn.Module):
    def __init__(self, c, code):
        super().__init__()

        def mlp():
            return nn.Sequential(
                nn.Linear(code, 512),
                nn.LeakyReLU(0.2, True),
                nn.Linear(512, 512),
                nn.LeakyReLU(0.2, True),
                nn.Linear(512, 2 * c),
            )

        self.scale, self.shift, self.c = mlp(), mlp(), c
        self.convs = nn.ModuleList([nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3)) for _ in range(2)])

    def forward(self, x, code):
        scale, shift = self.scale(code), self.shift(code)
        y = x
        for i, conv in enumerate(self.convs):
            part = slice(i * self.c, (i + 1) * self.c)
            y = F.instance_norm(conv(y)) * scale[:, part, None, None] + shift[:, part, None, None]
            y = F.leaky_relu(y, 0.2) if i == 0 else y
        return x + y


class Decoder(nn.Module):
    def __init__(self, c=128, code=8192):
        super().__init__()
        self.blocks = nn.ModuleList([AdaBlock(c, code // 4) for _ in range(4)])
        ups = []
        for _ in range(2):
            ups += [nn.Upsample(scale_factor=2), ConvBlock(c, c // 2, 5, norm="ln")]
            c //= 2
        self.ups = nn.Sequential(*ups, ConvBlock(c, c, 3), ConvBlock(c, c, 3), ConvBlock(c, 3, 1, act=False))

    def forward(self, structure, appearance):
        x = structure
        for block, code in zip(self.blocks, appearance.chunk(4, 1), strict=True):
            x = block(x, code)
        return self.ups(x)


class Discriminator(nn.Module):
    def __init__(self, w=32, scales=3):
        super().__init__()

        def one():
            layers, cin = [], 3
            for c, k, s in ((w, 1, 1), (w, 3, 1), (w, 3, 2), (w, 3, 1), (2 * w, 3, 2)):
                layers.append(ConvBlock(cin, c, k, s))
                cin = c
            return nn.Sequential(*layers, *[Res(2 * w) for _ in range(4)], ConvBlock(2 * w, 1, 1, act=False))

        self.nets = nn.ModuleList([one() for _ in range(scales)])

    def forward(self, x):
        out = []
        for net in self.nets:
            out.append(net(x))
            x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        return out


class Step:
    """The networks, their optimizers, and a step of all."""

    def __init__(self):
        self.appearance, self.structure, self.generator = AppearanceEncoder(), StructureEncoder(), Decoder()
        self.discriminator, self.teacher = Discriminator(), Teacher().requires_grad_(False)
        made = (self.structure, self.generator, self.discriminator)
        parameters = [sum(weights.numel() for weights in network.parameters()) for network in made]
        if parameters != PARAMETERS:
            raise ValueError(f"E_s, G and D have {parameters} parameters, but ours have {PARAMETERS}.")
        adam = {"lr": 1e-4, "betas": (0.0, 0.999), "weight_decay": 5e-4}
        self.of_discriminator = torch.optim.Adam(self.discriminator.parameters(), **adam)
        self.of_generator = torch.optim.Adam([*self.structure.parameters(), *self.generator.parameters()], **adam)
        self.of_appearance = torch.optim.SGD(self.appearance.parameters(), 2e-3, 0.9, weight_decay=5e-4, nesterov=True)

    def __call__(self, images, erased, labels, feeds_swaps) -> list[float]:
        """The losses of one step.

        Args:
            images, erased: of each of two rows an image and a positive, [x_a, x_b, positive_a, positive_b], float32
              [rows, 3, H, W] each; `erased` are those of the identification losses. labels: of both rows.
            feeds_swaps: whether swaps teach E_a yet, as after the warm-up.
        """
        x_a, x_b = images[:2]
        s_a, s_b = self.structure(x_a), self.structure(x_b)
        with torch.no_grad():  # codes are detached
            f_a, f_b, positive_a, positive_b = (self.appearance(x)[0] for x in images)
        G = self.generator
        swaps = G(s_b, f_a), G(s_a, f_b)  # of appearance a and structure b, and the other way round
        made = G(s_a, f_a), G(s_b, f_b), G(s_a, positive_a), G(s_b, positive_b)

        self.of_discriminator.zero_grad()
        loss_d = sum(self.discriminators_loss(swap.detach(), x) for swap, x in zip(swaps, (x_a, x_b), strict=True))
        loss_d.backward()
        self.of_discriminator.step()

        self.of_generator.zero_grad()
        self.of_appearance.zero_grad()
        self.discriminator.requires_grad_(False)
        self.appearance.requires_grad_(False)
        loss_g = 5 * sum(l1(fake, x) for fake, x in zip(made, (x_a, x_b, x_a, x_b), strict=True))
        loss_g = loss_g + 2 * sum(((out - 1) ** 2).mean() for swap in swaps for out in self.discriminator(swap))
        (of_swap_a, primary_a, _), (of_swap_b, primary_b, _) = (self.appearance(swap) for swap in swaps)
        loss_g = loss_g + 0.5 * (F.cross_entropy(primary_a, labels[0]) + F.cross_entropy(primary_b, labels[1]))
        if feeds_swaps:
            loss_g = loss_g + l1(of_swap_a, f_a) + l1(of_swap_b, f_b)
            s_of_b, s_of_a = (self.structure(swap) for swap in swaps)
            loss_g = loss_g + l1(s_of_b, s_b.detach()) + l1(s_of_a, s_a.detach())
            cycled = G(s_of_a, of_swap_a.detach()), G(s_of_b, of_swap_b.detach())
            loss_g = loss_g + 2 * (l1(cycled[0], x_a) + l1(cycled[1], x_b))
        loss_g.backward()
        self.appearance.requires_grad_(True)
        self.discriminator.requires_grad_(True)

        loss_id = self.identification_loss(erased, labels, swaps, feeds_swaps)
        loss_id.backward()
        self.of_generator.step()
        self.of_appearance.step()
        return [loss.item() for loss in (loss_d, loss_g, loss_id)]

    def identification_loss(self, erased, labels, swaps, feeds_swaps):
        out = [self.appearance(x) for x in erased]
        loss = sum(F.cross_entropy(one[1], label) for one, label in zip(out, (*labels, *labels), strict=True))
        if not feeds_swaps:
            return loss
        for swap, label_of_structure in zip(swaps, reversed(labels), strict=True):
            _, primary, fine = self.appearance(swap.detach())
            soft = self.soft_labels(swap.detach())
            loss = loss + 2 * F.kl_div(primary.log_softmax(1), soft, reduction="batchmean")
            loss = loss + 0.4 * F.cross_entropy(fine, label_of_structure)
        return loss + 0.4 * sum(F.cross_entropy(one[2], label) for one, label in zip(out[:2], labels, strict=True))

    @torch.no_grad()
    def soft_labels(self, swap):
        return (self.teacher(swap).softmax(1) + self.teacher(swap.flip(3)).softmax(1)) / 2

    def discriminators_loss(self, fake, real):
        real = real.detach().requires_grad_()
        total = 0.0
        for of_fake, of_real in zip(self.discriminator(fake), self.discriminator(real), strict=True):
            (gradient,) = torch.autograd.grad(of_real.sum(), real, create_graph=True)
            penalty = gradient.pow(2).sum((1, 2, 3)).mean()
            total = total + (of_fake**2).mean() + ((of_real - 1) ** 2).mean() + 0.01 * penalty
        return total


def l1(a, b):
    return (a - b).abs().mean()
